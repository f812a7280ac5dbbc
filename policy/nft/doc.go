// Package nft brings a filter.Ruleset into the kernel and reads it back. It owns the tables `bridge bladenet` and
// `inet bladenet_host` and touches nothing else; it never judges a packet and never forks nft.
//
// Expressions and dumps are google/nftables'. The batch itself is encoded here, because a set that is keyed by raw payload needs
// user data that the library cannot send, and because one acknowledgement at a batch's end is enough: asking for one per
// message fills the receive buffer from a few hundred messages on.
package nft
