FROM busybox
COPY di? [a-b].txt /some/
COPY . /all/
# ignore: **/y
# ignore: archive.*
# ignore: !dir/y
