FROM busybox
COPY --from=7 /a /b
# says: invalid from flag value 7
