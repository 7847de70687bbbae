"""`python -m flaskapp_deploy` is `flaskapp-deploy`."""

from flaskapp_deploy.cli import main

main()
