from django.http import JsonResponse
from django.urls import path

from shop.models import Item


def items(request):
    if request.method == "POST":
        Item.objects.create(name=request.POST["name"])
        return JsonResponse({}, status=201)
    return JsonResponse({"items": [item.name for item in Item.objects.order_by("-id")[:10]]})


urlpatterns = [path("", items)]
