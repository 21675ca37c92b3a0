/// Makes the host of a playground's nodes. Quick: claims ports and directories, starts nothing (`NodeHost.start` does).
enum PlaygroundLauncher {
    /// - Throws: `NodeHostError` with one line (port in use, directory not writable, wrong data).
    static func make(_ options: PlaygroundOptions) throws -> any NodeHost {
        throw NodeHostError("this build has no embedded nodes")
    }
}
