"""A Google Cloud Storage server for tests: everything in memory, answers as the real service gives them.

It speaks the part of the JSON API and of the XML API that mscfs uses, with generations, preconditions,
checksums, resumable uploads, page tokens and OAuth tokens for service accounts. What is not there is answered
with 501, never with a guess.

    objects.py   buckets, objects and preconditions: what the service knows, without HTTP
    messages.py  requests, responses, refusals
    json_api.py  /storage/v1, /download, /batch
    uploads.py   /upload: media, multipart and resumable
    xml_api.py   /bucket/object
    oauth.py     /token: a signed assertion for an access token
    server.py    HTTP/1.1 on asyncio

`python -m …gcs_fake --port 0` serves on 127.0.0.1 and prints its URL.
"""
