// SPDX-License-Identifier: Apache-2.0

// Command gateway lets programs call WeChat's API without its tokens and AppSecrets.
package main

func main() {}
