#!/bin/sh
# Placeholder replaced in the next commit
