/// What only the Chaos view does.
enum ChaosVerb: Hashable, Sendable {
    case none
}

extension Catalogue {
    static let chaosEntries: [CatalogueEntry] = []
}

extension Model {
    mutating func performInChaos(_ verb: Verb, _ commands: inout [Command]) {
    }

    func obstacle(to verb: ChaosVerb) -> String? {
        nil
    }

    /// One step back inside the view; false when there is none.
    mutating func stepBackInChaos() -> Bool {
        false
    }

    /// `step`: 0 for a click, else rows that the wheel turned.
    mutating func mouseInChaos(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
    }
}
