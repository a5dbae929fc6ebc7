"""The two pages for people: the playground, and the API's description by Swagger UI, from this server alone."""

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, HTTPException, Response

router = APIRouter(include_in_schema=False)

PLAYGROUND: Final = Path(__file__).parent.parent / "playground" / "index.html"
SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# a package of Swagger UI's own files, kept up to date with it; its routes are not used
ASSETS: Final = files("fastapi_offline") / "static"
ASSET_TYPES: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
DOCS: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runstream API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>
const at = location.pathname.replace(/\\/docs$/, "/openapi.json");  // /openapi.json, below a prefix as well
SwaggerUIBundle({url: at, dom_id: "#swagger-ui", deepLinking: true, showExtensions: true});
</script>
</body>
</html>
"""


def page(text: str) -> Response:
    """HTML that runs its own scripts and no others, talks to this server alone, and is shown in nobody's frame."""
    digests = [hashlib.sha256(script.encode()).digest() for script in SCRIPT.findall(text)]
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    policy = (
        f"default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
    }
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)


@router.head("/")
@router.get("/")
async def playground() -> Response:
    return page(PLAYGROUND.read_text())


@router.head("/docs")
@router.get("/docs")
async def docs() -> Response:
    return page(DOCS)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    if name not in ASSET_TYPES:
        raise HTTPException(404)
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "max-age=3600"}
    return Response((ASSETS / name).read_bytes(), media_type=ASSET_TYPES[name], headers=headers)
