"""What runs in a consumer pod besides the bridge and the workers."""
