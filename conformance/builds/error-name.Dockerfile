FROM Bad/Name
# says: repository name
