# a comment

FROM busybox
RUN echo one \
  # within
  two \

  three >/f
CMD echo \
    a   b
