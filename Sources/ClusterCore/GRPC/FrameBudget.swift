/// What a client may send that makes work and brings nothing: settings and windows that change all the time, empty frames, requests that only lead
/// to a reset. Without it a connection costs its sender next to nothing and the server a processor.
///
/// Calls and what is sent to the client earn credit, idle frames spend it. A client that asks and reads never runs out, since it sends a few frames
/// for each that it gets; one that does nothing else runs out after `full` of them. The owner of the session fills it up at even times, for
/// clients that keep an idle connection alive for months. RST_STREAM is not in it, nghttp2 has a rate for that.
struct FrameBudget {
    static let full = 10_000
    private(set) var credit = full
    var isSpent: Bool { credit < 0 }

    /// The first headers of a call, which cost one as any frame; and a frame of an answer, unless it was cut to a tiny window: that pays for windows of
    /// stream and connection, and for what the client measures.
    static let perCall = 9
    /// A reset for what the client did wrong costs more than its headers earned.
    static let perReset = 20
    /// New settings may touch every open stream.
    static let perSettings = 4
    /// Answers in pieces below this, where a window is the reason, earn nothing.
    static let leastPieceBytes = 256

    mutating func earn(_ count: Int) { credit = min(credit + count, FrameBudget.full) }
    mutating func spend(_ count: Int) { credit -= count }
    mutating func refill() { credit = FrameBudget.full }
}
