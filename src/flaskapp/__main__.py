from flaskapp.cli import main

main()
