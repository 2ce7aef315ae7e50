FROM busybox
ONBUILD FROM x
# says: FROM isn't allowed as an ONBUILD trigger
