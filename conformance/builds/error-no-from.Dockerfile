RUN x
# says: build stage in current context
