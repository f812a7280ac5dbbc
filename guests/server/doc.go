// Package server runs inside a virtual machine that is a real server: it gives the machine the network that its blade wants, and says
// when the service may start and how it is. The service itself is started elsewhere, so that it outlives this.
package server
