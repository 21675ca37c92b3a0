extension Model {
    func drawChaos(_ canvas: inout Canvas, _ body: Rect) {
    }
}
