/// State of the Chaos view. The row of the matrix is `overview.selection`: the same node is selected in both views.
struct ChaosState: Hashable, Sendable {
    /// Index of the receiving node; nil: the whole node of the row is selected, not a link of it.
    var column: Int?
    /// Index into `FaultAct.allCases`.
    var act = 0
    /// Index into `faults`.
    var active = 0
    /// Index into `scenarios`.
    var scenario = 0
}
