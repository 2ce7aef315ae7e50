FROM busybox
CMD ["first"]
ENTRYPOINT ["prog", "-x"]
CMD arg one
