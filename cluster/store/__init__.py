"""What is kept, and where: files, tables, runs and versions under one storage root."""
