"""Objects in S3 and in what speaks its protocol: boto3 for credentials and control, obstore for the data plane."""
