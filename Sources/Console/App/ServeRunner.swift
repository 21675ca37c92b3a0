/// Runs one node in the foreground until a signal ends it.
enum ServeRunner {
    /// - Returns: the process's exit status.
    /// - Throws: `CommandFailure` with one line (port in use, unreadable directory, data of another cluster).
    static func run(_ options: ServeOptions) throws -> Int32 {
        throw CommandFailure(description: "this build has no server")
    }
}
