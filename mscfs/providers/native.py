"""The native data plane: reads, listings and plain puts of the object stores through obstore.

`S3Provider`, `GCSProvider` and `AzureProvider` delegate here what the Rust client does many times cheaper than
their SDKs, and keep their SDK for everything else: conditional copies, metadata, parts, keys the Rust client cannot
express, and forked children that inherited a used Rust runtime.
"""
