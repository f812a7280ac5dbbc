// Package api is what bladed and its clients say to each other: HTTP and JSON on a Unix socket, version 1. It holds the
// messages and the client; it never touches the kernel or a policy file.
package api
