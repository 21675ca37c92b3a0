/// State of the Chaos view.
struct ChaosState: Hashable, Sendable {
}
