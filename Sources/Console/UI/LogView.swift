extension Model {
    func drawLog(_ canvas: inout Canvas, _ body: Rect) {
    }
}
