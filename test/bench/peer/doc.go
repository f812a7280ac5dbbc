// Package peer does by other means what the product does: it hands finished bytes to the kernel, which is as fast as anybody can be,
// speaks through the libraries that the product could have used, and writes the rules of iptables, ipset and libvirt.
package peer
