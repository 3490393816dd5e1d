// Command bench compares the platform with its components and with other gateways. All contenders run on one machine in
// alternating rounds, so that the ratios are meaningful even if the absolute numbers are not.
//
// It is a separate module, so that the other gateways do not become dependencies of the product.
package main
