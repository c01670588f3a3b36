"""The nodes of a cluster: started, secured, grown, examined."""
