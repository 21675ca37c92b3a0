/// How many messages travel in each direction of a remote procedure call.
public enum CallKind: UInt8, Hashable, Sendable {
    /// One request, one response.
    case unary
    /// One request, any number of responses.
    case serverStream
    /// Any number both ways, independent of each other.
    case bidirectional
}
