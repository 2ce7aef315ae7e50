FROM busybox
STOPSIGNAL NOPE
# says: nvalid signal: NOPE
