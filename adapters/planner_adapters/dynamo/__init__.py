"""What Dynamo's tools write and read: its profile files."""
