#!/bin/sh
# Stands in for the process that compiles: part of an output, and then no more.
printf '\177ELF\002\001\001'
kill -KILL $$
