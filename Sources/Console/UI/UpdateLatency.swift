/// What only the Latency view does.
enum LatencyVerb: Hashable, Sendable {
    case none
}

extension Catalogue {
    static let latencyEntries: [CatalogueEntry] = []
}

extension Model {
    mutating func performInLatency(_ verb: Verb, _ commands: inout [Command]) {
    }

    func obstacle(to verb: LatencyVerb) -> String? {
        nil
    }

    /// One step back inside the view; false when there is none.
    mutating func stepBackInLatency() -> Bool {
        false
    }

    /// `step`: 0 for a click, else rows that the wheel turned.
    mutating func mouseInLatency(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
    }
}
