FROM busybox
LABEL one=1 two="two words" "three"='quoted $X'
LABEL old form
MAINTAINER Bee <bee@hive>
# flags: --label from=flag --label two=other
