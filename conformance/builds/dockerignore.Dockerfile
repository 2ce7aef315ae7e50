FROM busybox
COPY . /all
# ignore: *.txt
# ignore: !b.txt
# ignore: dir/s*
# ignore: Dockerfile
