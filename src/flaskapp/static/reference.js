const place = document.getElementById("reference");
SwaggerUIBundle({url: place.dataset.document, domNode: place, deepLinking: true, tryItOutEnabled: true});
