// Package lxc runs containers through liblxc. Everything below its folder is its own, and nothing else is touched: a container is
// a folder with the clone's delta over an image, one configuration file written whole, and logs. The container's network is not
// made here: it joins a network namespace that is ready before its init runs and stays when it ends.
package lxc
