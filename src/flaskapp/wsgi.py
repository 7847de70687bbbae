"""The WSGI application that a server loads: `flaskapp.wsgi:app`."""

import sys

from flaskapp import create_app
from flaskapp.settings import SettingsError

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"flaskapp: {error}")
