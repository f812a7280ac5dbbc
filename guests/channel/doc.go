// Package channel owns what a blade and the bladeguest inside one of its directors say to each other: the messages, their
// bytes and their bounds, over an out-of-band stream (vsock) that no network reaches. The host dials and asks, the guest
// answers, one request at a time. The guest is hostile: nothing that it sends is believed to be short, printable, in range or
// honest about who it is. It never touches a kernel's configuration, and never reads a clock except for deadlines.
//
// A frame is a length (4 bytes, big endian, 1 to MaxRequest or MaxReply) and that many bytes of JSON, one Request or Reply.
package channel
