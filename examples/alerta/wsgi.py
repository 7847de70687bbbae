from alerta import create_app as create_app
