FROM busybox
ONBUILD FROM busybox
# says: FROM isn't allowed as an ONBUILD trigger
