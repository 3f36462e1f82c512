#!/bin/sh -e
chmod 0700 /root
