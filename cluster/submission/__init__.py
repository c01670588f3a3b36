"""A verb on a cluster elsewhere: packed, submitted as a job, followed to its end."""
