from httpbin import app as app
