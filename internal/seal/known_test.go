package seal

// Known answers for the secret 0x42 × 32 and the data "hello". GUID, r and v
// agree with lukechampine.com/blake3, an implementation of other authors.
const (
	knownBlock = "415442310201000015acb47525324a4f95eba00f2d082b7c6da4c4bc39"
	knownGUID  = "839eebc4e6089f9e13e1c9072c2179a9e4946c3b853555ffbe674a311f9b0ca3"
	knownR     = "0ce45b7ee982ececf627b2f77be8fed921d1f878aa9c1d09fa97c951b4108323"
	knownV     = "1dbec4c3529358b2f78e6d613434fac0a22055cd51d2dd6bb42a8a01e4e93f2c"
	knownRoot  = "c38ae15a64b784d059ed23868a2a031cb7200b9e86e6d9746489779b5aa51b9b"
	knownLink  = "atoll:r1:aebagbgdrlqvuzfxqtift3jdq2fcuay4w4qaxhug43mxizejo6nvvji3tnkkib2hjwvl5ff4cchvwmhnt6gwwpps24kzktrsozsd2joccm37bozg45tq"
)
