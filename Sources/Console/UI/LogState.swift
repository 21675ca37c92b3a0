/// State of the Log view.
struct LogState: Hashable, Sendable {
    mutating func heard(_ lines: [LogLine]) {}
}
