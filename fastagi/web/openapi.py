"""`/api/v1/openapi.json`, made from the table of routes, so that it lists exactly the routes that answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastagi.web.api import Route

ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "one line: what is wrong and what to do"}},
    "required": ["error"],
}

ALWAYS = {
    400: "a parameter is wrong",
    401: "no token, or none that is known",
    403: "the token's role may not do that",
    503: "the ledger or Asterisk cannot be reached, or too much at once: try again",
}


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.url, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fastagi",
            "version": version,
            "description": "Recordings of an Asterisk: list, listen, start, stop, deliver again.",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": ERROR},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for status, words in {**ALWAYS, **route.answers}.items():
        content: dict[str, Any] = {}
        if status >= 400:
            content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        elif status != 304:
            content = {route.media: {"schema": {"type": "object"} if route.media == "application/json" else {}}}
        told[str(status)] = {"description": words, **({"content": content} if content else {})}
    operation: dict[str, Any] = {
        "operationId": route.action.__name__ + "".join(part.capitalize() for part in route.path.split("/")[1:2]),
        "summary": route.summary,
        "description": f"Role: {route.role.word}.",
        "responses": dict(sorted(told.items())),
    }
    parameters: list[dict[str, Any]] = [
        {
            "name": p.name,
            "in": "query",
            **({"required": True} if p.required else {}),
            "schema": dict(p.schema),
            **({"description": p.words} if p.words else {}),
        }
        for p in route.query
    ]
    if "{id}" in route.path:
        parameters.insert(0, {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {f.name: {**f.schema, "description": f.words} for f in route.body},
        }
        required = [f.name for f in route.body if f.required]
        if required:
            schema["required"] = required
        operation["requestBody"] = {"required": bool(required), "content": {"application/json": {"schema": schema}}}
    return operation
