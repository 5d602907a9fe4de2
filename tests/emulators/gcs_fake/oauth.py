"""The token endpoint: a service account's signed assertion for an access token."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs

from .messages import Refusal, Request, Response, json_response

LIFETIME_SECONDS = 3600


class TokenIssuer:
    """Knows one public key; without it every assertion is refused. Requests without a token are anonymous."""

    def __init__(self, public_key: str) -> None:
        self._public_key = public_key
        self._tokens: set[str] = set()

    def handle(self, request: Request) -> Response:
        # Only here: it costs a tenth of a second, and anonymous clients never come here.
        from google.auth import exceptions, jwt

        assertion = parse_qs(request.body.decode()).get("assertion", [""])[0]
        try:
            jwt.decode(assertion, certs=self._public_key)
        except (ValueError, exceptions.GoogleAuthError):
            return json_response({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        token = secrets.token_urlsafe(24)
        self._tokens.add(token)
        return json_response({"access_token": token, "expires_in": LIFETIME_SECONDS, "token_type": "Bearer"})

    def authorize(self, request: Request) -> None:
        """Refuse a token that was not given out here."""
        header = request.headers.get("authorization")
        if header is not None and header.removeprefix("Bearer ") not in self._tokens:
            raise Refusal(401, "authError", "Invalid Credentials", {"WWW-Authenticate": 'Bearer realm="storage"'})
