extension Model {
    func drawElections(_ canvas: inout Canvas, _ body: Rect) {
    }
}
