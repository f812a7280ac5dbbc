// Command bench measures the product beside its peers: what a packet costs under the blade's own ruleset, what changing that ruleset
// costs, and the same for links, IPVS and the policy itself. Every ratio is of interleaved rounds on one machine. What needs a
// blade's kernel (connection tracking on bridges, IPVS) runs in the lab.
//
//	bench [--rows P1,R] [--rounds 15] [--json build/bench.json] [--markdown build/bench.md] [--lab bin/lab]
package main
