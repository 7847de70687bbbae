from ihatemoney.wsgi import application as application
